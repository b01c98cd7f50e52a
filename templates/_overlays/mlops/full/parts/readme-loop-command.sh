make loop     # drift, retraining, A/B test, promotion, with simulated traffic
