// Gating schemes as the window offers them: what is in force in a row, what a choice sends, and why it cannot be made.
// Pure; any thread.
#pragma once

#include <string>
#include <vector>

#include "engine/model/plan.h"
#include "engine/routing/edit.h"

namespace switchyard {

// The scheme of a row under a recipe, by name; "native" where there is none. recipe: nullptr is native.
SchemeChoice scheme_in_force(const Recipe* recipe, int moe_layer);

// Why the scheme cannot run with its standard parameters in a row, or in all; empty: it can be chosen. What needs a
// file is not asked for it.
std::string why_not(const SchemeInfo& scheme, const ModelPlan& plan, int moe_layer, bool all);

// The edit that puts a scheme in force; kUsage with the reason where it cannot run.
Result<EditCommand> scheme_edit(const Scheme& scheme, const ModelPlan& plan, int moe_layer, bool all);

// A parameter of a choice: what it says, else the standard.
SchemeValue value_of(const SchemeChoice& choice, const SchemeParameter& parameter);

bool needs_file(const SchemeInfo& scheme);
bool names_file(const SchemeChoice& choice);  // make_scheme() will read one: a job

// "exact · looks at all tokens of the prompt · by seed": what to know before choosing.
std::string properties_of(const SchemeInfo& scheme);

}  // namespace switchyard
