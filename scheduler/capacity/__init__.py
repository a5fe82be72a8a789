"""How many connections, lanes and processes a load needs: planned by simulating the code that runs in production."""
