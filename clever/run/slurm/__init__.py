"""Running on a Slurm cluster: from a plan to arrays of jobs with dependencies, and what happens inside a job."""
