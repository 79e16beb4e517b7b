package elastic

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/elastic/go-elasticsearch/v8/esapi"
)

// noCluster is the id of a node that has not joined a cluster yet.
const noCluster = "_na_"

// errNoCluster says that the server does not tell now where it belongs.
var errNoCluster = errors.New("the server has joined no cluster")

// Identity names the cluster, by the id that it was made with, and the prefix of our indices in it: a new cluster at
// the same address is another one. A server that has no such id is known by its address.
func (x *Index) Identity(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	id, err := x.cluster(ctx)
	if err != nil {
		return "", fmt.Errorf("ask for the cluster's id: %w", err)
	}
	switch {
	case id == noCluster, id == "" && x.hasID.Load(): // a moment's failing is not another cluster
		return "", errNoCluster
	case id == "":
		id = x.transport.URLs()[0].Host
	default:
		x.hasID.Store(true)
	}
	return x.product.name + ":" + id + "/" + x.options.Prefix, nil
}

// cluster gives the cluster's id; empty where the server does not tell.
func (x *Index) cluster(ctx context.Context) (string, error) {
	var info struct {
		Cluster string `json:"cluster_uuid"`
	}
	answer, err := esapi.InfoRequest{}.Do(ctx, x.transport)
	if err != nil {
		return "", err
	}
	err = read(answer, &info)
	if err == nil && info.Cluster != "" {
		return info.Cluster, nil
	}
	if err != nil && !hasStatus(err, http.StatusMethodNotAllowed, http.StatusNotFound, http.StatusForbidden) {
		return "", err
	}
	// A build without that page, or a proxy that does not show it.
	err = x.ask(ctx, esapi.ClusterStateRequest{Metric: []string{"version"}, FilterPath: []string{"cluster_uuid"}}, &info)
	if err != nil && !hasStatus(err, http.StatusMethodNotAllowed, http.StatusNotFound, http.StatusForbidden, http.StatusBadRequest) {
		return "", err
	}
	return info.Cluster, nil
}
