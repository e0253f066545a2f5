//! Training: where everything lies in memory, the recorded iteration, and what runs it.

pub mod checkpoint;
mod losses;
mod model;
mod plan;
pub mod run;
mod step;
mod trainer;

pub use losses::{LOSS_NAMES, Losses};
pub use model::{Model, TensorId, TensorRole};
pub use plan::{InferencePlan, MemoryEstimate, TrainingPlan};
pub use step::apply as apply_activation;
pub use step::{
    DOutput, GOutput, Recording, SampleGridOutputs, StepOutputs, record_sample_grid, record_step,
    record_translate,
};
pub use trainer::{Inference, Trainer};
