"""What is stored text worth to CTR models? `nightshift study sample_efficiency` and `study ablation`."""
