# The same rules as the Prometheus operator wants them.
RULES := deploy/kubernetes/monitoring/rules.yaml

.PHONY: collect feedback drift ab retrain promote loop rules
feedback: setup ## record ground truth for logged predictions: make feedback ARGS="labels.csv"
	$(RUN) feedback $(ARGS)

collect: setup ## write what servers have logged to the database; `serve` does so by itself
	$(RUN) collect $(ARGS)

drift: setup ## compare recent inputs and predictions with the validation set
	$(RUN) drift $(ARGS)

ab: setup ## show the A/B test so far and its verdict
	$(RUN) ab $(ARGS)

retrain: setup ## train a challenger if one is needed and start its A/B test
	$(RUN) retrain --if-needed $(ARGS)

promote: setup ## make the challenger the champion if the A/B test says so
	$(RUN) promote $(ARGS)

loop: setup ## simulate drift, retraining, A/B test and promotion with this data
	$(BIN)/python -m {{ cookiecutter.package_name }}.simulation $(ARGS)

rules: ## copy the alert rules from deploy/prometheus to deploy/kubernetes
	@{ sed '/^spec:/q' $(RULES); sed 's/^./  &/' deploy/prometheus/alerts.yml; } > $(RULES).new
	@mv $(RULES).new $(RULES)

