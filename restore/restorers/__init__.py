"""Restorers: trained networks and classical methods with one interface (`base.Restorer`)."""
