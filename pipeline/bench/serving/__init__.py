"""What `bench serve` measures: services, each a process of its own, and a client in another.

services         the services: started, asked whether they answer, their memory, stopped
client           a client that keeps connections busy, or sends at a rate
overload         more requests than a service can bear
fastapi_service  FastAPI and ONNX Runtime, as in their tutorials
litserve_service LitServe and ONNX Runtime, as in its documentation
"""
