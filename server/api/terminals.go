package api

import (
	"context"

	"github.com/danielgtaylor/huma/v2"

	"podlab/lab"
	"podlab/lab/agentapi"
	"podlab/server/access"
	"podlab/server/agentclient"
)

type (
	terminalRequest struct {
		InLab
		Body struct {
			Target string `json:"target" maxLength:"400" doc:"POD, POD/CONTAINER, NAMESPACE/POD/CONTAINER or node:NODE."`
			Cols   uint16 `json:"cols" minimum:"1" maximum:"1000"`
			Rows   uint16 `json:"rows" minimum:"1" maximum:"1000"`
		}
	}
	oneTerminalRequest struct {
		InLab
		TID string `path:"tid" maxLength:"64"`
	}
	logRequest struct {
		InLab
		Before uint64 `query:"before" doc:"Events before this number; 0 means all."`
		Limit  int    `query:"limit" default:"1000" minimum:"1" maximum:"5000"`
	}
)

// agent returns the client of a lab's agent, if the caller has the right.
func (s *Server) agent(ctx context.Context, id string, right access.Right) (*agentclient.Client, error) {
	l, err := access.Lab(ctx, s.Labs, id, right)
	if err != nil {
		return nil, err
	}
	agent, _, err := l.Agent()
	return agent, err
}

func (s *Server) terminals(api huma.API) {
	add(s, api, operation{"GET", "/labs/{id}/terminals", "list-terminals", "List the lab's shells", 0, false},
		func(ctx context.Context, in *InLab) (*body[[]agentapi.Terminal], error) {
			agent, err := s.agent(ctx, in.ID, access.See)
			if err != nil {
				return nil, err
			}
			return ok(agent.Terminals(ctx))
		})
	add(s, api, operation{"POST", "/labs/{id}/terminals", "create-terminal", "Start a shell in a container or node", 201, false},
		func(ctx context.Context, in *terminalRequest) (*body[agentapi.Terminal], error) {
			target := lab.Target(in.Body.Target)
			if _, err := target.Parse(); err != nil {
				return nil, err
			}
			agent, err := s.agent(ctx, in.ID, access.Use)
			if err != nil {
				return nil, err
			}
			return ok(agent.OpenTerminal(ctx, agentapi.TerminalRequest{Target: target, Cols: in.Body.Cols, Rows: in.Body.Rows}))
		})
	add(s, api, operation{"DELETE", "/labs/{id}/terminals/{tid}", "delete-terminal", "End a shell", 204, false},
		func(ctx context.Context, in *oneTerminalRequest) (*none, error) {
			agent, err := s.agent(ctx, in.ID, access.Use)
			if err != nil {
				return nil, err
			}
			return &none{}, agent.DeleteTerminal(ctx, in.TID)
		})
}
