"""Driving: street scenes from a car's camera, as KITTI's photographs show them."""
