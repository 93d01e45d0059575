"""Jobs of agents: each as an inferlet (`guests/python/jobs`), and as a client of an endpoint."""
