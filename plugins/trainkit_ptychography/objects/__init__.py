"""How the specimen's transmission is parametrised: a kind that other packages can extend."""
