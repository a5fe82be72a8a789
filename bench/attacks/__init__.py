"""What `bench.hostile` does to a gateway: small functions, each a kind of attack, run in a process of their own."""
