"""What tests share: engines, apps, programs, and the counter of leaks."""
