"""`manage.py up`: starts the appliance's processes, keeps them running, and ends them all."""
