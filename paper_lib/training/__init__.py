"""How a run is trained: rollouts, objectives, one loop, and what each run starts from."""
