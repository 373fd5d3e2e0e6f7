"""The control plane and the node agent: apiserver, scheduler, controllers, kubelet, and the client they all use."""
