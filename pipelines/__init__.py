"""Kubeflow pipelines of diffse."""
