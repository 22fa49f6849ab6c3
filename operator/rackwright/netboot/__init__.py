"""What a machine boots over the network: the decision per network card, its iPXE script, and the files it loads."""
