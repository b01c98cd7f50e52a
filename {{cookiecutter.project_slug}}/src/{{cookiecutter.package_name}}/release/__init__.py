"""From a run to what answers: export, register, deploy, try, promote, return."""
