"""Second derivatives that are right: by which functions, in which context, and how they are checked."""
