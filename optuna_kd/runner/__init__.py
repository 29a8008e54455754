"""Running studies: workers, controls, trials, confirmation, full trainings, progress.

Nothing is imported here: worker processes take `jobs` alone, and start in half the time.
"""
