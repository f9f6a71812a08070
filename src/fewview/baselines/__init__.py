"""What any model has to beat: the mean volume and classical reconstruction."""
