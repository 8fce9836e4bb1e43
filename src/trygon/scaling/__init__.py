"""How many replicas a deployment shall have, from the load it has: pure rules and the values they look at."""
