"""The pure object model: functions on JSON documents, no I/O, no async (what k8s.io/apimachinery is to Kubernetes).

Names, quantities, selectors, schemas, patches, codecs, CEL and the error tree. Kinds live in kcp.apis.
"""
