"""Reading, cleaning, checking and splitting: from files to a dataset."""
