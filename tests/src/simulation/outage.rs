//! Hours in which the model has no room for anybody.

use std::fmt;
use std::time::Duration;

use super::Universe;
use super::world::World;

/// How a batch of jobs fared in an outage of the model.
#[derive(Debug)]
pub struct Outage {
    /// How many jobs there were.
    pub jobs: usize,
    /// How long the model was away.
    pub lasted: Duration,
    /// How long after the model's return the last job ended.
    pub tail: Duration,
    /// How many times a ticket was received, for the job that took the most.
    pub most_receives: u32,
    /// How many times the model refused.
    pub throttled: usize,
    /// How many pictures were painted.
    pub pictures: usize,
    /// What happened that must not.
    pub violations: Vec<String>,
}

impl Outage {
    /// Whether each job was painted once and nothing else happened.
    pub fn is_good(&self) -> bool {
        self.violations.is_empty() && self.pictures == self.jobs
    }
}

impl fmt::Display for Outage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "jobs           {}", self.jobs)?;
        writeln!(f, "outage         {:.1} h, simulated", self.lasted.as_secs_f64() / 3600.0)?;
        writeln!(
            f,
            "tail           {:.1} min from the model's return to the last picture",
            self.tail.as_secs_f64() / 60.0
        )?;
        writeln!(f, "refusals       {}", self.throttled)?;
        writeln!(f, "receives       {} at the most", self.most_receives)?;
        writeln!(f, "pictures       {} ({:.3} per job)", self.pictures, self.pictures as f64 / self.jobs as f64)?;
        write!(f, "violations     {}", self.violations.len())?;
        self.violations.iter().take(20).try_for_each(|violation| write!(f, "\n  {violation}"))
    }
}

impl Universe {
    /// Takes in a batch of `jobs`, at most 1000, just when the model goes away for so long, and sees them all to their end.
    pub async fn outage(&self, jobs: usize, lasts: Duration) -> Outage {
        let mut world = World::new(self, u64::MAX, None);
        let back_at = self.clock.now() + lasts;
        {
            let mut scene = world.scene();
            scene.calm = true;
            scene.model_back_at = back_at;
        }
        world.submit_jobs(jobs).await;
        world.release_all().await;
        world.work_off(10).await;
        world.check().await;
        let scene = world.scene();
        Outage {
            jobs: scene.tally.jobs,
            lasted: lasts,
            tail: self.clock.now().since(back_at),
            most_receives: scene.most_receives,
            throttled: scene.tally.faults.get("model throttled").copied().unwrap_or_default(),
            pictures: scene.tally.pictures,
            violations: scene.violations.clone(),
        }
    }
}
