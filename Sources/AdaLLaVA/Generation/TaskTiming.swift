import Foundation

/// One request's limits and predictions.
struct TaskTiming {
    /// `nil` for a fraction of compute: times are predicted and nothing is chosen by them.
    let limits: TimeLimits?
    let confidence: Double
    /// Parts of each layer that run.
    var shares: [LayerShare]
    /// Times of the plan; of the whole model until there is one.
    var times: PlanTimes
    /// Times of the steps that this request took part in, over those of its own rows.
    var crowding = 1.0
    /// Factors that limits are kept with, chosen with the plan.
    var firstTokenMargin = 1.0, wholeMargin = 1.0
    /// Predicted nanoseconds of the prompt in the prefix layers.
    var prefix = 0.0
    /// Tokens that the answer is expected to have.
    var expected = 1
    var prediction = AnswerPrediction()

    /// Time and load when the plan was chosen; and the time of the steps since then on an idle machine: to the first token, and in all.
    var chosen: ContinuousClock.Instant?
    var loadsAtChoice = PhaseLoads()
    var idleToFirstToken = PhaseNanoseconds(), idle = PhaseNanoseconds()
    /// Nanoseconds since then that steps took for other requests: predictions of this one are not wrong by them.
    var othersToFirstToken = 0.0, others = 0.0
    /// This request's part of the newest step's computing; 0 if it had none.
    var ownShare = 0.0
    /// Predicted nanoseconds of one more row in a step that reads the weights anyhow.
    var row = 0.0

    /// Takes over a plan.
    mutating func use(_ plan: ExecutionPlan, _ planner: TimePlanner?) {
        guard let planner else { return }
        let cost = planner.costPlan(plan)
        shares = cost.shares
        times = planner.times(cost)
        row = planner.row(times)
    }

    mutating func note(_ change: PlanChange) {
        // Neighbouring changes of one token are one.
        if let last = prediction.changes.last, last.tokens == change.tokens {
            prediction.changes[prediction.changes.count - 1] = PlanChange(tokens: last.tokens, from: last.from, to: change.to)
        } else {
            prediction.changes.append(change)
        }
    }
}
