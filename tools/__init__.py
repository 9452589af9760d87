"""Programs that write files of this repository; they are no part of the package."""
