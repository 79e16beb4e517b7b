package actions_test

import (
	"net/url"
	"testing"

	"github.com/tributary-dev/tributary/pkg/actions"
)

func TestEndpointsHaveTheirPorts(t *testing.T) {
	for text, want := range map[string]string{
		"http://Carrier.Example":         "http://carrier.example:80",
		"https://carrier.example/a?b":    "https://carrier.example:443",
		"https://carrier.example:8443":   "https://carrier.example:8443",
		"https://u:p@[2001:DB8::1]/path": "https://[2001:db8::1]:443",
		"amqp://carrier.example:5672":    "amqp://carrier.example:5672",
		"amqp://carrier.example":         "amqp://carrier.example:port",
	} {
		u, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		if got, known := actions.EndpointOf(u); got != want || known != (text != "amqp://carrier.example") {
			t.Errorf("%s: %s, %t; want %s", text, got, known, want)
		}
	}
}
