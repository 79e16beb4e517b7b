// Command indexer runs retries and asynchronous actions; see indexer --help.
package main

import "github.com/tributary-dev/tributary/internal/app"

func main() { app.Main(app.Indexer) }
