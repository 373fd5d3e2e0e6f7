"""The controllers, one file each, and the manager that elects a leader and runs them."""
