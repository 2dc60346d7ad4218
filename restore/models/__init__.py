"""The networks: generators and discriminators. `registry` opens them by name."""
