"""Video files: what they hold, their frames in and out, and the copies of everything else. Needs the extra `video`."""
