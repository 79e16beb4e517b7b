package expr

import (
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
)

// mrkdwn escapes what begins a mention, a link or an entity in a message of Slack
// (https://api.slack.com/reference/surfaces/formatting#escaping).
var mrkdwn = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;")

// mrkdwnFunction declares mrkdwn(text), for values within blocks.
func mrkdwnFunction() cel.EnvOption {
	return cel.Function("mrkdwn", cel.Overload("mrkdwn_string", []*cel.Type{cel.StringType}, cel.StringType,
		cel.UnaryBinding(func(text ref.Val) ref.Val {
			s, ok := text.(types.String)
			if !ok {
				return types.MaybeNoSuchOverloadErr(text)
			}
			return types.String(mrkdwn.Replace(string(s)))
		})))
}
