"""The bundle and the deployment folder: all that training hands to the server."""
