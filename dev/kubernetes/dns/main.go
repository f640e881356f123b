// The cluster's DNS: CoreDNS with only the plugins that the test cluster's Corefile
// names, since building all of them takes longer than the rest of the cluster's DNS.
package main

import (
	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/health"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/loadbalance"
	_ "github.com/coredns/coredns/plugin/ready"

	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"
)

func main() {
	dnsserver.Directives = []string{
		"errors", "health", "ready", "cache", "loadbalance", "kubernetes",
	}
	coremain.Run()
}
