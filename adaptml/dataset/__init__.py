"""Reading and checking datasets: the same code at intake, in the trainer and on a laptop."""
