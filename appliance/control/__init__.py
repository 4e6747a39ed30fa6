"""The control loop: observe, decide, act. The only package that both decides and acts."""
