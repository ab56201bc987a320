"""Where answers are kept to be given again: in memory and a file of this gateway, or on a server that many share."""
