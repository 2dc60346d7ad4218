"""Everything that repairs an image, behind one contract (`base.Restorer`)."""
