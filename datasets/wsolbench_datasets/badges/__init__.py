"""`badges`: the embedded data set, composed from what ships inside scikit-learn."""
