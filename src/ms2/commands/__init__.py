"""Commands beside Lightning's: data sets, and what is made of them."""
