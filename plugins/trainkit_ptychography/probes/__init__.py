"""What illuminates the specimen: a kind that other packages can extend, and the trained modes."""
