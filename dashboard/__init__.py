"""What people see: the live overview, the playground and the admin."""
