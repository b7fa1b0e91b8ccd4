"""Puts the parts together: table of components, start and stop order, PKI, kubeconfigs. Knows every room below."""
