"""Which values the concepts of a picture have, and where in the picture each concept is."""
