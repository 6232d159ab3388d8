"""What this service measures of itself: ratios, taken in one run on one machine."""
