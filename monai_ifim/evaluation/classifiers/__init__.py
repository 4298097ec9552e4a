"""Classification tasks and the classifiers that are evaluated on them."""
