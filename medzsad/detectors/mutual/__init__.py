"""A cohort that scores itself: what is rare among its images is anomalous (MuSc)."""
