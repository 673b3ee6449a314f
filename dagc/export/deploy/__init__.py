"""A deployment as one thing: its servers, replicas and router, and files of the programs that start all of them."""
