"""Meta-Sim2: scene structure for synthetic data, learned from unlabelled images."""
